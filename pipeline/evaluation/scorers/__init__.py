"""What scores a response: a model's weights here, a server that has them, or a baseline that needs none."""
