"""What a trained model is asked: predictions and explanations."""
