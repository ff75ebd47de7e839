//! The recipes of docs/transparent-mode.md, as their readers follow them: each block is run on the router.
//!
//! The packet filters of packages are in `rules/`, as the packages made them from the commands of the recipe.

use std::fs;
use std::path::Path;

use crate::docs::page::{Block, Page};
use crate::support::{Host, Lab, require_program};

const PAGE: &str = "docs/transparent-mode.md";

/// The section of one set-up.
pub(super) struct Recipe {
    title: &'static str,
    blocks: Vec<Block>,
}

impl Recipe {
    pub(super) fn read(title: &'static str) -> Self {
        let mut page = Page::open(PAGE);
        let at = page.sections.iter().position(|section| section.title == title);
        let at = at.unwrap_or_else(|| panic!("{PAGE}: no section {title:?}"));
        Self { title, blocks: page.sections.swap_remove(at).blocks }
    }

    /// Loads `files` of `rules/`, then runs the blocks.
    pub(super) fn apply(&self, lab: &Lab, files: &[&str]) {
        require_program("iptables", "iptables");
        let texts: Vec<String> = files.iter().map(|name| rules(name)).collect();
        for (name, text) in files.iter().zip(&texts) {
            let text = self.with_lines_of_package(text);
            load(lab, &lab.gateway, name, &text);
        }
        for block in &self.blocks {
            match block.language.as_str() {
                "nft" => load(lab, &lab.gateway, "recipe.nft", &block.text),
                "sh" => {
                    let is_packages =
                        |line: &&str| line.starts_with("ufw ") || line.starts_with("firewall-cmd ");
                    let (made, run): (Vec<&str>, Vec<&str>) =
                        block.text.lines().partition(is_packages);
                    for command in made {
                        let made_by = format!("# {command}\n");
                        assert!(
                            texts.iter().any(|text| text.contains(&made_by)),
                            "{files:?} were made without `{command}`"
                        );
                    }
                    lab.gateway.run(["sh", "-ec", &run.join("\n")]);
                }
                "text" | "toml" => {}
                other => panic!("{}: a block of {other:?}", self.title),
            }
        }
    }

    /// Lines for a file of ufw follow its rules about loopback.
    fn with_lines_of_package(&self, rules: &str) -> String {
        let own = self.blocks.iter().filter(|block| block.language == "text");
        let own: Vec<&str> = own.flat_map(|block| block.text.lines()).collect();
        let mut text = String::new();
        for line in rules.lines() {
            text.push_str(&format!("{line}\n"));
            let Some(chain) = line.strip_suffix(" -i lo -j ACCEPT") else { continue };
            let of_chain = own.iter().filter(|own| own.starts_with(&format!("{chain} ")));
            of_chain.for_each(|own| text.push_str(&format!("{own}\n")));
        }
        text
    }

    /// The line of its configuration about interfaces, if it has one.
    pub(super) fn interfaces(&self) -> Option<String> {
        let toml = self.blocks.iter().find(|block| block.language == "toml")?;
        toml.text.lines().find(|line| line.starts_with("interfaces = ")).map(str::to_owned)
    }
}

/// A file of `rules/`.
pub(super) fn rules(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/routers/rules");
    let path = folder.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Loads rules by the program for the extension of `name`.
pub(super) fn load(lab: &Lab, host: &Host, name: &str, rules: &str) {
    let file = lab.path(name);
    fs::write(&file, rules).unwrap();
    let file = file.to_str().unwrap();
    match name.rsplit('.').next() {
        Some("nft") => host.run(["nft", "-f", file]),
        Some("v4") => host.run(["iptables-nft-restore", "-n", file]),
        Some("v6") => host.run(["ip6tables-nft-restore", "-n", file]),
        _ => panic!("{name}: not .nft, .v4 or .v6"),
    };
}
