# `cmake --install` gives the headers, both libraries (the tool installs itself), a package for find_package(flashmla):
# flashmla::flashmla (shared) and flashmla::flashmla_static, and flashmla.pc for pkg-config.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(FLASHMLA_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/flashmla)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/flashmla DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/THIRD_PARTY_NOTICES DESTINATION ${CMAKE_INSTALL_DOCDIR})

# One export set a library: who links the shared one needs no CUDA toolkit, who links the static one does.
foreach(library flashmla flashmla_static)
  install(TARGETS ${library} EXPORT ${library}-targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT ${library}-targets NAMESPACE flashmla:: DESTINATION ${FLASHMLA_PACKAGE_DIR})
endforeach()

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/flashmla-config.cmake.in ${CMAKE_BINARY_DIR}/flashmla-config.cmake INSTALL_DESTINATION ${FLASHMLA_PACKAGE_DIR})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/flashmla-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/flashmla-config.cmake ${CMAKE_BINARY_DIR}/flashmla-config-version.cmake DESTINATION ${FLASHMLA_PACKAGE_DIR})

# The prefix is found from where the file lies, so that an installed tree may be moved.
set(FLASHMLA_PC_DIR ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH FLASHMLA_PC_PREFIX /${FLASHMLA_PC_DIR} /)
string(REGEX REPLACE "/$" "" FLASHMLA_PC_PREFIX ${FLASHMLA_PC_PREFIX})
set(FLASHMLA_PC_LIBS_PRIVATE "-lstdc++ -lpthread -lm")
if(FLASHMLA_WITH_CUDA)
  string(PREPEND FLASHMLA_PC_LIBS_PRIVATE "-L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -ldl -lrt ")
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/flashmla.pc.in ${CMAKE_BINARY_DIR}/flashmla.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/flashmla.pc DESTINATION ${FLASHMLA_PC_DIR})
