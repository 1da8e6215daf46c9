#!/usr/bin/env bash
# Build llama.cpp's server, and write it a model: `build.sh <folder>`. Takes minutes, once.
#
# The sources are those that the package llama-cpp-python brings along, since an index of Python packages
# is all that this needs. Its own server reports no usage in streams, llama.cpp's does.
set -euo pipefail

VERSION=0.3.36
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$1/bin/python
work=$1/build

"$python" -m pip install --quiet --disable-pip-version-check cmake ninja gguf numpy
"$python" "$here/tiny_model.py" "$1/tiny.gguf"

if [ ! -x "$1/bin/llama-server" ]; then
  command -v c++ >/dev/null || { echo 'A C++ compiler is needed; on Debian: apt-get install g++' >&2; exit 1; }
  echo 'Building llama-server: this takes some minutes.'
  mkdir -p "$work"
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$work" \
    "llama-cpp-python==$VERSION"
  tar -xzf "$work/llama_cpp_python-$VERSION.tar.gz" -C "$work"
  # Little optimisation: the model is tiny, the build is not. No page, which would be downloaded.
  PATH="$(cd "$1/bin" && pwd):$PATH" cmake -S "$work/llama_cpp_python-$VERSION/vendor/llama.cpp" -B "$work/out" -G Ninja \
    -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O1 -DCMAKE_CXX_FLAGS=-O1 -DBUILD_SHARED_LIBS=OFF \
    -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF >"$work/configure.log"
  PATH="$(cd "$1/bin" && pwd):$PATH" cmake --build "$work/out" --target llama-server >"$work/build.log" || {
    tail -n 40 "$work/build.log" >&2
    exit 1
  }
  cp "$work/out/bin/llama-server" "$1/bin/"
  rm -rf "$work"
fi
