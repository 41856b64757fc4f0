mod changes;
mod tokens;
