// What one instruction set's object offers to the dispatcher.
#pragma once

#include "../api.h"

struct RzKernels {
    int64_t (*view_bytes)(const RzParams*);
    int64_t (*instance_bytes)(const RzParams*);
    int64_t (*gradient_bytes)(const RzParams*);
    int (*plan)(RzParams*);
    int (*render)(RzParams*);
    int (*backward)(RzParams*);
    void (*count_visits)(const RzParams*, int64_t* entries, int64_t* pixels);
};
