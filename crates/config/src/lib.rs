//! The configuration language: words, blocks, directive tables, diagnostics, the manual
