"""Text from language models, and how near it comes to references."""
