"""The search over recipes: spaces, trials, studies."""
