"""Split inference: client halves on devices, the server half answers, and what each request costs."""
