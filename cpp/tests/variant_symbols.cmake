# cmake -DNM=nm -DOBJECTS=a.o;b.o -P variant_symbols.cmake
#
# Of a function that several objects define alike (a template of the standard library, say) the linker keeps any one.
# Were one of them compiled for AVX-512, a machine without it would stop on it: so a variant's object may define such
# (weak) symbols only if their names carry the variant's own namespace.
foreach(object IN LISTS OBJECTS)
  string(REGEX REPLACE "^.*gesda_(kernels|inference)_([a-z0-9]+)\\.dir.*$" "\\2" variant "${object}")
  execute_process(COMMAND "${NM}" -C --defined-only "${object}" OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[0-9a-f]+ [WVu] [^\n]+" weak "${symbols}")
  foreach(symbol IN LISTS weak)
    if(NOT symbol MATCHES "gesda::${variant}::" AND NOT symbol MATCHES "DW\\.ref\\.")
      message(SEND_ERROR "${variant}: ${symbol} could replace another variant's or the core's")
    endif()
  endforeach()
  list(LENGTH weak count)
  message(STATUS "${variant}: ${count} weak symbols")
endforeach()
