//! One file per HTTP feature
