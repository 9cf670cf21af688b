# libgesda, shared and static, gesda-infer, and what installs them: headers, a CMake package, a pkg-config file.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Nothing but the C ABI is seen from outside, under a version of its own.
set(gesda_symbols "${PROJECT_SOURCE_DIR}/cpp/runtime/symbols.map")
string(REGEX MATCH "^[0-9]+" GESDA_ABI "${GESDA_VERSION}")

function(gesda_carries_stdcxx target)
  if(GESDA_STATIC_STDCXX AND NOT APPLE AND NOT GESDA_SANITIZE)
    target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc)
  endif()
  if(NOT APPLE)
    target_link_options(${target} PRIVATE -Wl,--gc-sections)
  endif()
endfunction()

add_library(gesda_shared SHARED ${gesda_runtime_objects})
add_library(gesda_static STATIC ${gesda_runtime_objects})
foreach(library gesda_shared gesda_static)
  target_link_libraries(${library} PRIVATE $<BUILD_INTERFACE:gesda_flags>)
  target_include_directories(${library} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cpp/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  set_target_properties(${library} PROPERTIES OUTPUT_NAME gesda LINKER_LANGUAGE CXX)
endforeach()
set_target_properties(gesda_shared PROPERTIES VERSION "${GESDA_VERSION}" SOVERSION "${GESDA_ABI}"
  EXPORT_NAME shared)
set_target_properties(gesda_static PROPERTIES EXPORT_NAME static)
gesda_carries_stdcxx(gesda_shared)
if(NOT APPLE)
  target_link_options(gesda_shared PRIVATE "-Wl,--version-script=${gesda_symbols}")
  set_target_properties(gesda_shared PROPERTIES LINK_DEPENDS "${gesda_symbols}")
endif()

file(GLOB gesda_cli_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/cli/*.cpp")
set_source_files_properties(${gesda_cli_sources} PROPERTIES COMPILE_OPTIONS "-Os")
add_executable(gesda-infer ${gesda_cli_sources})
target_link_libraries(gesda-infer PRIVATE gesda_static gesda_flags)
target_compile_options(gesda-infer PRIVATE -ffunction-sections)
gesda_carries_stdcxx(gesda-infer)

# ---- installation --------------------------------------------------------------------------------
install(TARGETS gesda_shared gesda_static EXPORT gesda
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS gesda-infer RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES "${PROJECT_SOURCE_DIR}/cpp/include/gesda/gesda.h" "${PROJECT_SOURCE_DIR}/cpp/include/gesda/gesda.hpp"
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/gesda)
set(gesda_package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/gesda")
install(EXPORT gesda NAMESPACE gesda:: FILE gesda-targets.cmake DESTINATION ${gesda_package_folder})
configure_package_config_file("${PROJECT_SOURCE_DIR}/cpp/cmake/gesda-config.cmake.in"
  "${PROJECT_BINARY_DIR}/gesda-config.cmake" INSTALL_DESTINATION ${gesda_package_folder})
write_basic_package_version_file("${PROJECT_BINARY_DIR}/gesda-config-version.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/gesda-config.cmake" "${PROJECT_BINARY_DIR}/gesda-config-version.cmake"
  DESTINATION ${gesda_package_folder})
configure_file("${PROJECT_SOURCE_DIR}/cpp/cmake/gesda.pc.in" "${PROJECT_BINARY_DIR}/gesda.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/gesda.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
