"""Every file that the product writes, typed and under one name; run folders, locks, journals, crash-safe files."""
