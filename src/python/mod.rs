//! What Python sees of the codec: a table.

use pyo3::prelude::*;

/// fastblets' codec. Private: `fastblets.cache.backend` and `fastblets.secrets.crypto` are the way in.
#[pymodule]
#[pyo3(name = "_native")]
mod native {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        Ok(())
    }
}
