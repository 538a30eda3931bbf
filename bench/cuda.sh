#!/bin/sh
# Build, test, sanitise and measure the CUDA backend on a machine with a GPU: what guards it where CI has none.
# Run from anywhere; prints one table per step and ends with the number of steps that failed. About 8 minutes.
#
#   bench/cuda.sh [build directory]
#   RVLLM_CUDA_ARCHS=80 bench/cuda.sh build-80    # kernels of an older architecture, which the driver compiles from PTX
cd "$(dirname "$0")/.." || exit 1
build=${1:-build-cuda}
python=${PYTHON:-python3}
arch=${RVLLM_CUDA_ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)}
[ "$arch" = 90 ] && arch=90a
failed=0

step() {
    name=$1
    shift
    echo "== $name"
    start=$(date +%s)
    "$@" || failed=$((failed + 1))
    echo "== $name: $(($(date +%s) - start)) s"
}

build() {
    mkdir -p "$build"
    cmake -G Ninja -S . -B "$build" -DPython_EXECUTABLE="$(command -v "$python")" -DRVLLM_CUDA=ON \
        -DRVLLM_CUDA_ARCHS="$arch" -DRVLLM_CUDA_BENCH=ON >"$build/build.log" 2>&1 &&
        cmake --build "$build" >>"$build/build.log" 2>&1 || { tail -20 "$build/build.log"; return 1; }
}

# In the background; finish NAME ... waits for them and prints how they ended.
beside() {
    name=$1
    shift
    "$@" >"$build/$name.log" 2>&1 &
    eval "pid_$name=$!"
}

finish() {
    start=$(date +%s)
    for name; do
        eval "wait \$pid_$name" || failed=$((failed + 1))
        echo "== the end of $build/$name.log"
        tail -30 "$build/$name.log"
    done
    echo "== $*: $(($(date +%s) - start)) s"
}

tests() { "$python" -m pytest -q -p no:cacheprovider -W ignore "$@"; }

sanitise() {
    CUDA_MODULE_LOADING=LAZY compute-sanitizer --tool "$1" --error-exitcode 1 \
        "$python" -m pytest -q -p no:cacheprovider -W ignore tests/cuda -k "$2"
}

engine() {
    model=$(mktemp -d) && "$python" -c "import sys; sys.path.insert(0, 'bench'); import random_models
random_models.write_model('$model', '7b')" &&
        "$python" -m rvllm benchmark "$model" --device cuda --load-format dummy "$@"
}

export PYTHONPATH="python${PYTHONPATH:+:$PYTHONPATH}"
step build build || exit 1
# Beside each other: it is quicker, and on a GPU that others use too, work that no stream orders shows.
beside tests tests tests/cuda tests/serve/test_load.py
# Loaded lazily, of cuBLASLt's kernels only those that run are checked.
beside memcheck sanitise memcheck "bf16 and not long or cpu and (5003 or 0.95) or between_the_tiers"
beside racecheck sanitise racecheck "bf16 and view or mixed_batch and 128 or large_batches and 128 and bf16 or cpu and 31-5"
finish tests memcheck racecheck
step "linear, check" timeout 60 "$build/cuda/cuda_gemm" --check-small
step "linear" "$build/cuda/cuda_gemm"
step "attention" "$python" bench/cuda_attention.py
step "sampler" "$python" bench/cuda_sampler.py
step "model" "$python" bench/cuda_model.py
step "engine, greedy" engine --n 1,4,16,32,64,128,256
step "engine, sampled" engine --n 1,32,256 --temperature 0.8 --top-p 0.95
step "engine, prefill" engine --n 1x128,1x512,1x2048,16x2048 --output-len 1
step "engine, context of 1,024" engine --n 64x1024 --output-len 64
step "engine, batch-invariant" engine --n 1,64,256 --batch-invariant --repeat 2
step "engine, cuBLASLt" engine --n 1,64,256 --gemm-strategy cublas --repeat 2
step "engine, hybrid" engine --n 1,64,256 --gemm-strategy hybrid --repeat 2
step "second tier" "$python" bench/swap.py --shape 7b --device cuda --prompt-tokens 8192 --prompts 4 --rounds 1
step "start" "$python" bench/startup.py --shape 7b --device cuda --repeat 3
step "HTTP, greedy" "$python" bench/serve.py --shape 7b --device cuda --rows 1,256,200:32,1024x64 --tokens 256 \
    --repeat 2
step "HTTP, sampled" "$python" bench/serve.py --shape 7b --device cuda --rows 256 --tokens 256 --repeat 2 \
    --temperature 0.8 --top-p 0.95
echo "$failed steps failed"
exit "$failed"
