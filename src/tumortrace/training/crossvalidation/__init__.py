"""Fresh models over folds by slide or patient, and what they predict out of fold."""
