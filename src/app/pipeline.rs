//! The analysis pipeline, with server names from the DNS answers in the same packets.

use crate::analyzer::Pipeline;
use crate::lookup::PassiveDns;

pub(super) type AnalysisPipeline = Pipeline<PassiveDns>;
