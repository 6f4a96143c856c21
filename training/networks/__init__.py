"""Networks to train, predictions with them, and their export as ONNX."""
