//! `gatepost watch clean`: what killed processes left in the kernel.

use crate::humanize::counted;
use crate::report::watch::joined_names;
use crate::source::live::{Leftovers, LiveError, remove_leftovers};

/// Removes it, and returns a report in lines.
///
/// # Errors
/// A capability is missing, or the kernel refuses.
pub(in crate::app) fn clean() -> Result<String, LiveError> {
    Ok(report(&remove_leftovers()?))
}

fn report(leftovers: &Leftovers) -> String {
    let number: usize = leftovers.removed.iter().map(|(_, filters)| filters).sum();
    let mut lines = if number == 0 {
        "no filters of killed gatepost processes\n".to_owned()
    } else {
        let interfaces: Vec<String> =
            leftovers.removed.iter().map(|(name, _)| name.clone()).collect();
        let filters = counted(number as u64, "filter");
        format!(
            "removed {filters} of killed gatepost processes from {}\n",
            joined_names(&interfaces)
        )
    };
    if leftovers.in_use > 0 {
        let filters = counted(leftovers.in_use as u64, "filter");
        lines.push_str(&format!("kept {filters} of running gatepost processes\n"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_name_the_interfaces() {
        let nothing = Leftovers::default();
        assert_eq!(report(&nothing), "no filters of killed gatepost processes\n");
        let removed = vec![("eth0".to_owned(), 2), ("lo".to_owned(), 1)];
        assert_eq!(
            report(&Leftovers { removed, in_use: 2 }),
            "removed 3 filters of killed gatepost processes from eth0 and lo\n\
             kept 2 filters of running gatepost processes\n"
        );
    }
}
