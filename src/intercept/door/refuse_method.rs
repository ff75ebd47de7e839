//! `[door] refuse`

use crate::label::labels;

labels! {
    #[derive(Default)]
    pub enum RefuseMethod {
        /// By the kernel, with a reset.
        #[default]
        Syn = "syn",
        /// By the relay, with 421 4.3.2.
        Smtp = "smtp",
    }
}
