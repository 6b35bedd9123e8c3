"""The same recipe on growing parts of the training split: whether more labels would help."""
