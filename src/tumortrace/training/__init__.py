"""From a recipe and a cohort to a run folder."""
