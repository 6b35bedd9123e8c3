"""Classical learners on texture descriptors, fitted by a search inside grouped folds."""
