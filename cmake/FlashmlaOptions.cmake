# Compile options shared by every room of the house.
find_package(Threads REQUIRED)
if(FLASHMLA_SANITIZE)
  add_link_options(-fsanitize=${FLASHMLA_SANITIZE})  # of the shared library too, which is linked from objects
endif()
# GCC 12 sees overlapping copies in std::string where there are none (GCC bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12 AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()

function(flashmla_options target)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C,CXX>:-Wall -Wextra $<$<BOOL:${FLASHMLA_WERROR}>:-Werror>>)
  if(FLASHMLA_WITH_CUDA)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -lineinfo -Xfatbin=-compress-all -Xcompiler=-Wall,-Wextra>)
  endif()
  if(FLASHMLA_SANITIZE)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${FLASHMLA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  endif()
endfunction()

# flashmla_room(core): an object library flashmla_core of all sources in src/core.
function(flashmla_room room)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${room}/*.cpp ${PROJECT_SOURCE_DIR}/src/${room}/*/*.cpp)
  if(room STREQUAL "cuda")
    file(GLOB cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${room}/*/*.cu)
    list(APPEND sources ${cuda_sources})
  endif()
  add_library(flashmla_${room} OBJECT ${sources})
  flashmla_options(flashmla_${room})
endfunction()
