"""What happens to images in laboratories, at fixed strengths: for measuring robustness, never for training."""
