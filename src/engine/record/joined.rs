//! One record of a session that the gateway relayed and that the mail server behind it asked the policy about: under TLS that
//! passes through, the questions have what the gateway could not see.

use super::{SessionRecord, TransactionRecord};

impl SessionRecord {
    /// Adds what the mail server's questions about this session showed, where the dialogue itself did not.
    pub fn join_questions(&mut self, asked: Self) {
        let Self { smtp, facts, verdict, questions, .. } = asked;
        if self.smtp.transactions_total == 0 {
            self.smtp.transactions = smtp.transactions;
            self.smtp.transactions_total = smtp.transactions_total;
        } else {
            self.name_messages(&smtp.transactions);
        }
        if self.smtp.tls.is_encrypted() {
            self.smtp.helo = smtp.helo.or(self.smtp.helo.take());
        }
        self.smtp.auth |= smtp.auth;
        if self.facts.is_none() {
            self.facts = facts;
        }
        for shadow in verdict.shadow {
            match self.verdict.shadow.iter_mut().find(|known| known.rule == shadow.rule) {
                Some(known) if shadow.action > known.action => *known = shadow,
                Some(_) => {}
                None => self.verdict.shadow.push(shadow),
            }
        }
        if verdict.action > self.verdict.action {
            self.verdict.action = verdict.action;
            (self.verdict.rule, self.verdict.reason) = (verdict.rule, verdict.reason);
        }
        self.questions.extend(questions);
    }

    /// The mail server's names of the messages, in the order of both.
    fn name_messages(&mut self, asked: &[TransactionRecord]) {
        let mut own = self.smtp.transactions.iter_mut();
        for one in asked {
            if let Some(same) = own.find(|own| own.mail_from == one.mail_from) {
                same.queue_id.clone_from(&one.queue_id);
            }
        }
    }
}
