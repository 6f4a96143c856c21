"""Networks to train, and their export as bundle and as ONNX."""
