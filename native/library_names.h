// The names by which the dynamic linker finds TensorFlow's libraries, from the rpath of the module that asks.
#pragma once

#if defined(__APPLE__)
#define SV_LIBTENSORFLOW_FRAMEWORK "@rpath/libtensorflow_framework.2.dylib"
#define SV_LIBTENSORFLOW_CC "@rpath/libtensorflow_cc.2.dylib"
#else
#define SV_LIBTENSORFLOW_FRAMEWORK "libtensorflow_framework.so.2"
#define SV_LIBTENSORFLOW_CC "libtensorflow_cc.so.2"
#endif
