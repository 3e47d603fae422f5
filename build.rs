//! Hands PyO3's knowledge of the interpreter to `src/python`, as `cfg`s.

fn main() {
    #[cfg(feature = "python")]
    pyo3_build_config::use_pyo3_cfgs();
}
