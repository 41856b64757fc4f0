//! What of the sources a program that embeds the library can see, in a form that people can compare.
//!
//! Bodies, private fields' names and documentation are left out. Macros are listed as they are called:
//! nothing is expanded.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use syn::{
    Attribute, Fields, FnArg, ImplItem, Item, ItemImpl, ItemTrait, Pat, Signature, TraitItem, Type,
    Visibility, parse_quote,
};

use crate::sources::{ModulePath, Place, Sources, exports, is_for_tests, name_of};

/// Attributes that a program notices.
const SEEN: [&str; 8] = [
    "cfg",
    "deprecated",
    "derive",
    "from",
    "must_use",
    "non_exhaustive",
    "repr",
    "serde",
];

/// The list of a library.
pub(crate) fn list(sources: &mut Sources, library: &str) -> Result<String> {
    Ok(collect(sources, library)?.text())
}

/// Where everything of the list is declared that has a name of its own.
pub(crate) fn places(sources: &mut Sources, library: &str) -> Result<Vec<Place>> {
    let listing = collect(sources, library)?;
    let place = |(module, name)| Place { module, name };
    Ok(listing.types.into_keys().map(place).collect())
}

fn collect(sources: &mut Sources, library: &str) -> Result<Listing> {
    sources.read(library)?;
    let mut waiting = vec![vec![library.to_owned()]];
    let mut listing = Listing::default();
    while let Some(module) = waiting.pop() {
        listing.take_module(sources, &module)?;
        for item in sources.items(&module) {
            if let Item::Mod(inner) = item
                && is_public(&inner.vis)
            {
                waiting.push([&module[..], &[inner.ident.to_string()]].concat());
            }
        }
    }
    listing.take_impls(sources)?;
    Ok(listing)
}

/// Lines of each module, and the types that they declare.
#[derive(Default)]
struct Listing {
    modules: BTreeMap<String, BTreeSet<String>>,
    /// Where a type is declared, and the module that it is listed in.
    types: BTreeMap<(ModulePath, String), String>,
}

impl Listing {
    fn take_module(&mut self, sources: &mut Sources, module: &ModulePath) -> Result<()> {
        let path = module.join("::");
        self.modules.entry(path.clone()).or_default();
        let items = sources.items(module).to_vec();
        for item in &items {
            self.take_item(&path, module, item);
        }
        for export in exports(&items) {
            match sources.declared(module, &export.path)? {
                Some(place) => self.take_export(sources, &path, &export.name, place),
                None => {
                    let line = format!("pub use {} as {};\n", export.path.join("::"), export.name);
                    self.line(&path, line);
                }
            }
        }
        Ok(())
    }

    fn take_export(&mut self, sources: &Sources, path: &str, name: &str, place: Place) {
        if name != place.name {
            self.line(path, format!("pub use {} as {name};\n", place.name));
        }
        let is_it = |item: &&Item| name_of(item).is_some_and(|it| *it == place.name);
        let items = sources.items(&place.module);
        if let Some(item) = items.iter().find(is_it) {
            self.take_item(path, &place.module, item);
        }
    }

    fn take_item(&mut self, path: &str, module: &ModulePath, item: &Item) {
        let Some(seen) = seen(item) else {
            return;
        };
        if let Some(name) = name_of(&seen) {
            let declared = (module.clone(), name.to_string());
            self.types
                .entry(declared)
                .or_insert_with(|| path.to_owned());
        }
        self.line(path, print(seen));
    }

    fn line(&mut self, path: &str, line: String) {
        self.modules
            .entry(path.to_owned())
            .or_default()
            .insert(line);
    }

    /// What the types that are listed can do, wherever that is written.
    fn take_impls(&mut self, sources: &mut Sources) -> Result<()> {
        let all = sources
            .modules()
            .map(|(path, items)| (path.clone(), items.to_vec()));
        for (module, items) in all.collect::<Vec<_>>() {
            let impls = items.into_iter().filter_map(|item| match item {
                Item::Impl(it) if !is_for_tests(&it.attrs) => Some(it),
                _ => None,
            });
            for block in impls {
                let Some(name) = self_name(&block.self_ty) else {
                    continue;
                };
                let Some(place) = sources.declared(&module, &name)? else {
                    continue;
                };
                let Some(path) = self.types.get(&(place.module, place.name)).cloned() else {
                    continue;
                };
                for line in lines_of(block) {
                    self.line(&path, line);
                }
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (path, lines) in &self.modules {
            text.push_str(&format!("\n## {path}\n\n"));
            text.extend(lines.iter().map(String::as_str));
        }
        text
    }
}

pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The path of the type that something is implemented for.
pub(crate) fn self_name(of: &Type) -> Option<Vec<String>> {
    match of {
        Type::Path(it) => {
            let segments = it.path.segments.iter();
            Some(segments.map(|segment| segment.ident.to_string()).collect())
        }
        Type::Reference(it) => self_name(&it.elem),
        _ => None,
    }
}

/// An item as others see it; `None` if they do not.
fn seen(item: &Item) -> Option<Item> {
    let mut item = item.clone();
    let (attributes, visibility) = match &mut item {
        Item::Const(it) => (&mut it.attrs, &it.vis),
        Item::Enum(it) => (&mut it.attrs, &it.vis),
        Item::Fn(it) => (&mut it.attrs, &it.vis),
        Item::Mod(it) => (&mut it.attrs, &it.vis),
        Item::Static(it) => (&mut it.attrs, &it.vis),
        Item::Struct(it) => (&mut it.attrs, &it.vis),
        Item::Trait(it) => (&mut it.attrs, &it.vis),
        Item::Type(it) => (&mut it.attrs, &it.vis),
        _ => return None,
    };
    if !is_public(visibility) || is_for_tests(attributes) {
        return None;
    }
    keep_seen(attributes);
    match &mut item {
        Item::Enum(it) => {
            for variant in &mut it.variants {
                keep_seen(&mut variant.attrs);
                variant
                    .fields
                    .iter_mut()
                    .for_each(|it| keep_seen(&mut it.attrs));
            }
        }
        Item::Fn(it) => {
            hide_mut(&mut it.sig);
            *it.block = parse_quote!({});
        }
        Item::Mod(it) => (it.content, it.semi) = (None, Some(parse_quote!(;))),
        Item::Struct(it) => hide_private(&mut it.fields),
        Item::Trait(it) => hide_bodies(it),
        _ => {}
    }
    Some(item)
}

fn keep_seen(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| SEEN.iter().any(|seen| attribute.path().is_ident(seen)));
}

/// That there are private fields matters, and how they are called does not.
fn hide_private(fields: &mut Fields) {
    match fields {
        Fields::Named(it) => {
            let all = it.named.len();
            it.named = std::mem::take(&mut it.named)
                .into_iter()
                .filter(|field| is_public(&field.vis))
                .collect();
            if it.named.len() < all {
                it.named.push(parse_quote!(private: Private));
            }
        }
        Fields::Unnamed(it) => {
            for field in &mut it.unnamed {
                if !is_public(&field.vis) {
                    field.ty = parse_quote!(Private);
                }
            }
        }
        Fields::Unit => {}
    }
    fields.iter_mut().for_each(|it| keep_seen(&mut it.attrs));
}

/// Whether a function changes its own copy of an argument is its own business.
fn hide_mut(signature: &mut Signature) {
    for argument in &mut signature.inputs {
        match argument {
            FnArg::Receiver(it) if it.reference.is_none() => it.mutability = None,
            FnArg::Receiver(_) => {}
            FnArg::Typed(it) => {
                if let Pat::Ident(it) = &mut *it.pat {
                    it.mutability = None;
                }
            }
        }
    }
}

fn hide_bodies(it: &mut ItemTrait) {
    for item in &mut it.items {
        match item {
            TraitItem::Fn(it) => {
                keep_seen(&mut it.attrs);
                if let Some(block) = &mut it.default {
                    *block = parse_quote!({});
                }
            }
            TraitItem::Type(it) => keep_seen(&mut it.attrs),
            TraitItem::Const(it) => keep_seen(&mut it.attrs),
            _ => {}
        }
    }
}

/// A block's public parts, each in a block of its own, so that they can be sorted.
fn lines_of(mut block: ItemImpl) -> Vec<String> {
    block.attrs.clear();
    let items = std::mem::take(&mut block.items);
    let is_trait = block.trait_.is_some();
    if is_trait {
        // Its methods are the trait's, and known.
        block.items = items
            .into_iter()
            .filter_map(|item| match item {
                ImplItem::Type(mut it) => {
                    it.attrs.clear();
                    Some(ImplItem::Type(it))
                }
                _ => None,
            })
            .collect();
        return vec![print(Item::Impl(block))];
    }
    let alone = |item| {
        let mut block = block.clone();
        block.items = vec![item];
        print(Item::Impl(block))
    };
    items.into_iter().filter_map(seen_part).map(alone).collect()
}

fn seen_part(item: ImplItem) -> Option<ImplItem> {
    match item {
        ImplItem::Fn(mut it) if is_public(&it.vis) && !is_for_tests(&it.attrs) => {
            keep_seen(&mut it.attrs);
            hide_mut(&mut it.sig);
            it.block = parse_quote!({});
            Some(ImplItem::Fn(it))
        }
        ImplItem::Const(mut it) if is_public(&it.vis) => {
            keep_seen(&mut it.attrs);
            Some(ImplItem::Const(it))
        }
        ImplItem::Macro(it) => Some(ImplItem::Macro(it)),
        _ => None,
    }
}

fn print(item: Item) -> String {
    let file = syn::File {
        shebang: None,
        attrs: Vec::new(),
        items: vec![item],
    };
    prettyplease::unparse(&file)
}
