// Macros as headers of Windows, macOS, X11, Qt, curses and C define them, before a header of Strata is read. Each
// header alone must bear these; those a program includes by itself (strata.hpp, cuda.hpp, io/onnx_export.hpp) also what
// is below, and leave all of them as they were: system_macros_after.hpp.
#define near
#define far
#define small char
#define hyper __int64
#define interface struct
#define pascal __stdcall
#define cdecl
#define IN
#define OUT
#define OPTIONAL
#define ERROR 0
#define NO_ERROR 0L
#define DELETE (0x00010000L)
#define CONST const
#define VOID void
#define TRUE 1
#define FALSE 0
#define ABSOLUTE 1
#define RELATIVE 2
#define TRANSPARENT 1
#define OPAQUE 2
#define STRICT 1
#define DIFFERENCE 11
#define IGNORE 0
#define INFINITE 0xFFFFFFFF
#define CALLBACK __stdcall
#define GetObject GetObjectA
#define GetMessage GetMessageA
#define CreateFile CreateFileA
#define LoadImage LoadImageA
#define CopyFile CopyFileA
#define DrawText DrawTextA
#define rad1 0x0430
#define rad2 0x0431
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define check(assertion) do { if (!(assertion)) abort_here(); } while (0)
#define verify(assertion) do { if (!(assertion)) abort_here(); } while (0)
#define require(assertion, label) do { if (!(assertion)) goto label; } while (0)
#define nil nullptr
#define Nil nullptr
#define YES 1
#define NO 0
#define Bool int
#define Status int
#define True 1
#define False 0
#define None 0L
#define Always 2
#define Success 0
#define Complex 0
#define Above 0
#define Below 1
#define Unsorted 0
#define Convex 2
#define GrayScale 1
#define KeyPress 2
#define FocusIn 9
#define CurrentTime 0L
#define signals public
#define slots
#define emit
#define foreach(a, b) for (a : b)
#define forever for (;;)
#define major(dev) gnu_dev_major(dev)
#define minor(dev) gnu_dev_minor(dev)
#define B0 0
#define B50 1
#define ECHO 8
#define CTRL(c) ((c) & 31)
#define roundup(x, y) ((((x) + ((y) - 1)) / (y)) * (y))
#define powerof2(x) ((((x) - 1) & (x)) == 0)
#define linux 1
#define unix 1
#define arm 1
#define PI 3.14159265358979323846
#define TWO_PI 6.28318530717958647692
#define EPS 1e-6
#define DEBUG 1
#define INFO 2
#define WARN 3
#define LOG(x) x
#define CHECK(x) x
#define ASSERT(x) x
#define UNUSED(x) x
#define HIGH 1
#define LOW 0
#define INPUT 0
#define OUTPUT 1
#define STATUS 0
#define VERSION "1"
#define SIZE 100
#ifdef STRATA_WHOLE
#define I _Complex_I
#endif
