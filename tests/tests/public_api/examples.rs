//! Which types of the list have an example for whoever reads their documentation.
//!
//! One counts if it is Rust that is compiled (`no_run` too), and is
//!
//! * in the type's own documentation or in that of one of its methods: both are on the type's page; or
//! * in the documentation of something that the type's links to (``[`Name`]``), and names the type in a line
//!   that is shown: types that are of use only together share an example.

use std::collections::BTreeMap;

use anyhow::Result;
use syn::{Attribute, Expr, ImplItem, Item, ItemImpl, Lit, Meta};

use crate::listing::{is_public, places, self_name};
use crate::sources::{ModulePath, Sources, is_for_tests, name_of};

/// What may stand behind the three marks of a block that is compiled.
const RUST: [&str; 4] = ["", "rust", "no_run", "should_panic"];

/// The structs and enums of a library's list that have no example, each with its file.
pub(crate) fn types_without(sources: &mut Sources, library: &str) -> Result<Vec<String>> {
    let places = places(sources, library)?;
    let documented = Documented::read(sources)?;
    let mut without = Vec::new();
    for place in places {
        let items = sources.items(&place.module).iter();
        let mut types = items.filter_map(|item| match item {
            Item::Enum(it) => Some((&it.ident, &it.attrs)),
            Item::Struct(it) => Some((&it.ident, &it.attrs)),
            _ => None,
        });
        let Some((_, attributes)) = types.find(|(name, _)| **name == place.name) else {
            continue;
        };
        let file = sources.file(&place.module).display();
        let told = format!("{} in {file}", place.name);
        if !documented.has_example((place.module, place.name), &docs(attributes)) {
            without.push(told);
        }
    }
    without.sort_unstable();
    Ok(without)
}

/// What is documented in the libraries that were read.
#[derive(Default)]
struct Documented {
    /// The documentation of the methods of a type, wherever they are written.
    methods: BTreeMap<(ModulePath, String), Vec<String>>,
    /// The documentation of everything public of this name, methods too.
    named: BTreeMap<String, Vec<String>>,
}

impl Documented {
    fn read(sources: &mut Sources) -> Result<Self> {
        let mut documented = Self::default();
        let all = sources
            .modules()
            .map(|(path, items)| (path.clone(), items.to_vec()));
        for (module, items) in all.collect::<Vec<_>>() {
            for item in items {
                documented.take(sources, &module, &item)?;
            }
        }
        Ok(documented)
    }

    fn take(&mut self, sources: &mut Sources, module: &ModulePath, item: &Item) -> Result<()> {
        let (visibility, attributes) = match item {
            Item::Enum(it) => (&it.vis, &it.attrs),
            Item::Fn(it) => (&it.vis, &it.attrs),
            Item::Struct(it) => (&it.vis, &it.attrs),
            Item::Trait(it) => (&it.vis, &it.attrs),
            Item::Impl(it) if it.trait_.is_none() && !is_for_tests(&it.attrs) => {
                return self.take_methods(sources, module, it);
            }
            _ => return Ok(()),
        };
        if let Some(name) = name_of(item).filter(|_| is_public(visibility)) {
            self.named
                .entry(name.to_string())
                .or_default()
                .push(docs(attributes));
        }
        Ok(())
    }

    fn take_methods(
        &mut self,
        sources: &mut Sources,
        module: &ModulePath,
        block: &ItemImpl,
    ) -> Result<()> {
        let Some(of) = self_name(&block.self_ty) else {
            return Ok(());
        };
        let Some(place) = sources.declared(module, &of)? else {
            return Ok(());
        };
        let methods = self.methods.entry((place.module, place.name)).or_default();
        for item in &block.items {
            let ImplItem::Fn(method) = item else {
                continue;
            };
            if is_public(&method.vis) && !is_for_tests(&method.attrs) {
                let docs = docs(&method.attrs);
                let named = self.named.entry(method.sig.ident.to_string());
                named.or_default().push(docs.clone());
                methods.push(docs);
            }
        }
        Ok(())
    }

    fn has_example(&self, of: (ModulePath, String), docs: &str) -> bool {
        let methods = self.methods.get(&of).into_iter().flatten();
        let mut on_its_page = methods.map(String::as_str).chain([docs]);
        if on_its_page.any(|docs| !shown_code(docs).is_empty()) {
            return true;
        }
        let links = links(docs);
        let linked = links.filter_map(|name| self.named.get(name)).flatten();
        linked
            .flat_map(|docs| shown_code(docs))
            .any(|line| words(line).any(|word| word == of.1))
    }
}

/// The text of doc comments.
fn docs(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        if let Meta::NameValue(it) = &attribute.meta
            && it.path.is_ident("doc")
            && let Expr::Lit(value) = &it.value
            && let Lit::Str(line) = &value.lit
        {
            let line = line.value();
            text.push_str(line.strip_prefix(' ').unwrap_or(&line));
            text.push('\n');
        }
    }
    text
}

/// The lines of Rust that a reader sees.
fn shown_code(docs: &str) -> Vec<&str> {
    let mut shown = Vec::new();
    // Whether what is inside of the marks is Rust.
    let mut block = None;
    for line in docs.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(kind), None) => block = Some(kind.split(',').all(|it| RUST.contains(&it.trim()))),
            (Some(_end), Some(_)) => block = None,
            (None, Some(true)) if line != "#" && !line.starts_with("# ") => shown.push(line),
            (None, _) => {}
        }
    }
    shown
}

/// The last parts of the paths in ``[`…`]``.
fn links(docs: &str) -> impl Iterator<Item = &str> {
    let behind = docs.split("[`").skip(1);
    let paths = behind.filter_map(|rest| rest.split_once("`]"));
    paths.map(|(path, _)| path.rsplit("::").next().unwrap_or(path))
}

/// The names and numbers in a line of code.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}
