message("SKIPPED: no clang++ with libFuzzer's runtime library here (Debian: libclang-rt-16-dev, of clang's version)")
