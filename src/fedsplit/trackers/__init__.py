"""Where a run is shown beside its own files: TensorBoard, Weights & Biases."""
