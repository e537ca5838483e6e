//! Models with experts, which can be run but not be allocated bits yet.

use std::path::PathBuf;

use gamma::{Calibration, Error, Gamma};

#[test]
fn models_with_experts_are_refused_before_any_work() {
    for model in ["qwen3-moe-random", "mixtral-random"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(model);
        let built = Gamma::builder().model(folder).calibration(Calibration::text_file("none.txt")).build();
        let error = built.expect_err("refused");
        assert!(matches!(error, Error::Setting { setting: "model", .. }), "{error}");
        assert!(error.to_string().contains("experts"), "{error}");
    }
}
