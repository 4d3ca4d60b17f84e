# Read by scripts/sanitize.sh's build alone. Of the portable level, gcc instruments every element where other levels have one vector:
# three minutes at -O1, half a minute at -Og, with the same checks.
set_source_files_properties(kernels/level_portable.cc PROPERTIES COMPILE_FLAGS -Og)
