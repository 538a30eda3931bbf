"""The compiled part of rvllm: Cython modules over librvllm.so, built from native/."""
