"""What is installed: the wheel, in an environment that knows nothing of the checkout."""
