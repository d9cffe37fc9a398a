//! Label values: fixed lists, one enum a label.

/// A value that a label of a metric can take.
pub(super) trait Label: Copy + 'static {
    /// All of them, by index.
    const ALL: &'static [Self];

    /// Its place in [`Self::ALL`].
    fn index(self) -> usize;

    /// The text in the exposition.
    fn label(self) -> &'static str;
}

/// Defines an enum whose variants are the values of a label.
macro_rules! labels {
    (
        $(#[$about:meta])*
        pub enum $name:ident { $( $(#[$about_value:meta])* $value:ident => $label:literal, )+ }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $( $(#[$about_value])* $value, )+ }

        impl $name {
            /// All of them, by index.
            pub const ALL: &'static [Self] = &[ $( Self::$value, )+ ];

            /// Its place in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The value of the label.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$value => $label, )+ }
            }
        }

        $crate::control::metrics::label::label_by_itself!($name);
    };
}

/// Takes a type's own `ALL`, `index` and `label` for the trait's.
macro_rules! label_by_itself {
    ($name:ty) => {
        impl $crate::control::metrics::label::Label for $name {
            const ALL: &'static [Self] = <$name>::ALL;

            fn index(self) -> usize {
                <$name>::index(self)
            }

            fn label(self) -> &'static str {
                <$name>::label(self)
            }
        }
    };
}

pub(super) use {label_by_itself, labels};
