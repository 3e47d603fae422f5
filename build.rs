//! Hands PyO3's knowledge of the interpreter to `src/python`, as `cfg`s, and refuses interpreters that nobody has checked.

fn main() {
    #[cfg(feature = "python")]
    {
        pyo3_build_config::use_pyo3_cfgs();
        interpreter::check();
    }
}

#[cfg(feature = "python")]
mod interpreter {
    use pyo3_build_config::{PythonAbiKind, PythonImplementation};

    /// The minor versions of CPython 3 against whose sources `src/python/cpython.rs` and `walk.rs` were read. Before a version is
    /// added: read every `SAFETY` text there against it, and run `make sanitize` on it.
    const CHECKED: std::ops::RangeInclusive<u8> = 10..=15;

    pub(crate) fn check() {
        let abi = pyo3_build_config::get().target_abi();
        let (implementation, version) = (abi.implementation(), abi.version());
        if implementation != PythonImplementation::CPython
            || version.major != 3
            || !CHECKED.contains(&version.minor)
            || matches!(abi.kind(), PythonAbiKind::Stable(_))
        {
            let kind = match abi.kind() {
                PythonAbiKind::Stable(_) => " (stable ABI)",
                PythonAbiKind::VersionSpecific(_) => "",
            };
            println!(
                "cargo::error=fastblets can't be built for {implementation} {version}{kind}. It reads objects of CPython as they \
                 are laid out in memory, which was checked for CPython 3.{} to 3.{}, each with its own ABI. Use one of these, or \
                 a newer fastblets.",
                CHECKED.start(),
                CHECKED.end()
            );
        }
    }
}
