//! Verdicts, and the words that users read.
