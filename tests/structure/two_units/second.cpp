#include "unit.hpp"

#include "describe.hpp"

Unit second() { return describe(); }
