#include "unit.hpp"

#include "describe.hpp"

Unit first() { return describe(); }
