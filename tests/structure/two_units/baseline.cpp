#include "unit.hpp"

#include "describe.hpp"

Unit baseline() { return describe(); }
