# Sets CMAKE_CUDA_COMPILER where nobody has: nvcc of the package index where it is installed beside
# ${Python_EXECUTABLE} (nvidia-cuda-nvcc, -crt, -cccl, -runtime, nvidia-nvvm), else that of a toolkit.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import glob, nvidia; print(*(n for p in nvidia.__path__ for n in glob.glob(p + '/cu*/bin/nvcc')), sep=';', end='')"
    OUTPUT_VARIABLE packaged ERROR_QUIET)
  if(packaged)
    list(GET packaged 0 CMAKE_CUDA_COMPILER)
    cmake_path(GET CMAKE_CUDA_COMPILER PARENT_PATH bin)
    cmake_path(GET bin PARENT_PATH CUDAToolkit_ROOT)
    set(CMAKE_CUDA_FLAGS_INIT "-L${CUDAToolkit_ROOT}/lib")  # where nvcc itself does not look
    file(GLOB CUDA_CUDART ${CUDAToolkit_ROOT}/lib/libcudart.so.*)  # CMake asks for it by a name it does not have
  else()
    find_program(RVLLM_NVCC nvcc PATHS /usr/local/cuda/bin)
    if(NOT RVLLM_NVCC)
      message(FATAL_ERROR "RVLLM_CUDA=ON needs nvcc: install a CUDA toolkit, or pip install 'nvidia-cuda-nvcc==13.0.*' "
        "'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-nvvm==13.0.*'")
    endif()
    set(CMAKE_CUDA_COMPILER ${RVLLM_NVCC})
  endif()
endif()
