# flashmla_test(name SOURCES a.cpp ... [LIBS ...]): one GoogleTest executable, each of its tests known to ctest.
#
# It links the static library, whose internals are reachable, and sees src/ and tests/ as include roots.
include(GoogleTest)
find_package(GTest REQUIRED)

function(flashmla_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  flashmla_options(${name})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${arg_LIBS} flashmla_static GTest::gtest GTest::gtest_main Threads::Threads)
  get_filename_component(room ${CMAKE_CURRENT_SOURCE_DIR} NAME)  # ctest -L core runs one room
  gtest_discover_tests(${name} TEST_PREFIX ${room}. NO_PRETTY_VALUES DISCOVERY_TIMEOUT 120 PROPERTIES TIMEOUT 1200 LABELS ${room})
endfunction()
