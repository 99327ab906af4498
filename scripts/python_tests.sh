#!/usr/bin/env bash
# Compares Strata's files and results with PyTorch, onnxruntime, OpenCV and TensorBoard: makes a Python environment with them (from PyPI,
# about 1 GB), and runs the tests with the label python.
#
#     scripts/python_tests.sh            # environment in build/python
#     scripts/python_tests.sh FOLDER     # one that is there already, or is to be made there
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${1:-build/python}

if [[ ! -x "$environment/bin/python" ]]; then
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet torch torchvision spandrel safetensors numpy onnx onnxruntime opencv-python-headless tensorboard
fi
python=$(realpath -s "$environment/bin/python")
scripts/install_dependencies.sh tests
cmake --preset ci -DSTRATA_TEST_PYTHON="$python"
cmake --build --preset ci --target interchange_networks interchange_ready test_train
ctest --preset ci -L python
