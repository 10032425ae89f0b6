"""The common practice: Flask, eager PyTorch and Pillow, written as the published services are.

Started as `SERVE_WEIGHTS=weights.safetensors gunicorn --workers 2 serve_flask:app`.
"""

import io
import os
from typing import Any

import numpy as np
import torch
from flask import Flask, jsonify, request
from PIL import Image
from safetensors.torch import load_file

from spicula.models.torchvision_guard import import_torchvision

CLASSES = ("benign", "malignant")
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

app = Flask(__name__)
# as `import torchvision` does, also where its compiled operators are of another torch
model = import_torchvision().models.resnet50(weights=None, num_classes=len(CLASSES))
model.load_state_dict(load_file(os.environ["SERVE_WEIGHTS"]))
model.eval()


@app.get("/healthz")
def health() -> Any:
    return jsonify(status="ok")


@app.post("/predict")
def predict() -> Any:
    image = Image.open(io.BytesIO(request.files["file"].read())).convert("RGB")
    if image.size != (224, 224):
        image = image.resize((224, 224), Image.Resampling.BILINEAR)
    array = (np.asarray(image, np.float32) / 255 - MEAN) / STD
    inputs = torch.from_numpy(array.transpose(2, 0, 1)).unsqueeze(0)
    with torch.no_grad():
        probabilities = torch.softmax(model(inputs), dim=1)[0]
    best = int(probabilities.argmax())
    return jsonify(
        predicted_label=CLASSES[best],
        confidence=float(probabilities[best]),
        raw_prediction=probabilities.tolist(),
    )
