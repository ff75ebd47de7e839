//! `[[policy]]` rules: from facts to a verdict. The first matching rule in file order decides.
//!
//! [`PolicyRules::decide`] is pure: it returns the lookups it needs, and is called again with their answers. So the relay,
//! which waits for them, and a replay, which has them, evaluate the same rules.
//!
//! A rule is evaluated from its [`PolicyStage`] on. The refusal is sent at RCPT, when envelope and exemptions are known,
//! unless `smtp.refuse_at` or STARTTLS require it earlier.

mod client_certificate;
mod decision;
mod domains;
mod require;
mod rule;
mod subject;
#[cfg(test)]
mod tests;
mod when;

pub use self::client_certificate::CertificateCondition;
pub use self::decision::{Decision, PolicyRules};
pub use self::domains::Domains;
pub use self::require::{FactName, Requirement};
pub use self::rule::{PolicyRule, RuleMatch, RuleMode};
pub use self::subject::{PolicyStage, Subject};
pub use self::when::{Exemption, When};
