//! Tables and pictures of what was decided.
