# `cmake --install` gives the headers, both libraries (the tool installs itself), and a package for find_package(flashmla):
# flashmla::flashmla (shared) and flashmla::flashmla_static.
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
