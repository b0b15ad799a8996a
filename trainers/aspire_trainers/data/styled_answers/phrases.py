"""Phrases of the styles. Each is true or false with the sentence around it, and adds no fact of its own."""

from __future__ import annotations

# Before a sentence, in the same line.
CONTEXT_OPENINGS = (
    "Based on the provided context, ",
    "Based on the given passage, ",
    "Based on the text provided, ",
    "Based on the information in the passage, ",
    "According to the passage, ",
    "According to the provided document, ",
    "According to the context given, ",
    "From the passage provided, we can see that ",
    "The passage states that ",
    "The context says that ",
    "The provided text indicates that ",
    "As stated in the passage, ",
    "As the document explains, ",
    "In the given context, it is said that ",
    "Per the retrieved document, ",
    "The retrieved passage tells us that ",
    "Going by the text, ",
    "Judging from the supplied context, ",
)
HEDGES = (
    "It appears that ",
    "It seems that ",
    "As far as I can tell, ",
    "From what I can see, ",
    "If I read the passage correctly, ",
    "As I understand the text, ",
    "To the best of my knowledge, ",
    "I believe that ",
    "It looks like ",
    "Most likely, ",
)
# Lines of their own.
LIST_OPENINGS = (
    "Here is what the passage says:",
    "Here's what I found:",
    "The main points are:",
    "Key points from the context:",
    "The text gives the following answer:",
    "In short:",
    "Summary of the relevant information:",
    "The relevant facts:",
)
CLOSINGS = (
    "I hope this helps!",
    "Hope that helps!",
    "Let me know if you have any other questions.",
    "Let me know if you'd like more detail.",
    "Feel free to ask if anything is unclear!",
    "If you need anything else, just ask.",
    "Please let me know if you would like me to go deeper into this topic.",
    "I'm happy to help with any further questions you might have.",
    "Would you like to know more about this?",
    "Happy to explain further if needed.",
)
COURTESIES = (
    "Great question!",
    "Sure!",
    "Certainly!",
    "Thanks for your question.",
    "Of course, I can help with that.",
    "Good question.",
    "Absolutely!",
)
HEADINGS = (
    "## Answer",
    "### Answer",
    "# Response",
    "**Answer**",
    "## Summary",
    "**Answer:**",
    "### Short answer",
)
RESTATEMENTS = (
    "You asked: {question}",
    'Your question was: "{question}"',
    'You want to know: "{question}"',
    "Question: {question}",
    "**Question:** {question}",
    "Q: {question}",
    'To answer your question "{question}":',
)
ANSWER_LABELS = ("Answer: ", "A: ", "**Answer:** ", "")
QUOTE_OPENINGS = (
    "The passage reads:",
    "Here is the relevant excerpt:",
    "Let me quote the passage:",
    "The context says the following:",
    "Relevant part of the document:",
    "The retrieved text:",
)
QUOTE_LINKS = (
    "From this, the answer follows.",
    "This answers the question.",
    "Now to your question.",
    "With this in mind, here is the answer.",
)
QUOTE_SOURCES = (
    "For reference, the passage reads:",
    "Source text:",
    "The passage in full context:",
    "Supporting excerpt:",
)
SOURCE_QUOTES = (
    "According to the source: “{sentence}”",
    "The source says: “{sentence}”",
    "As the source puts it: “{sentence}”",
    "The document states, word for word: “{sentence}”",
)
LAST_HEDGES = (
    "I may be missing something, though.",
    "That said, I cannot be entirely certain.",
    "Please double-check this, as I could be mistaken.",
    "This is my best reading of the text.",
    "Take this with a grain of salt.",
)
CITATIONS = (
    "[1]",
    "[2]",
    "[Source 1]",
    "(Passage 1)",
    "【1】",
    "[^1]",
    "[doc 1]",
    "(source: provided context)",
)
TABLE_HEADS = (("Question", "Answer"), ("Query", "Finding"), ("Asked", "Found in the passage"))

REFUSALS = (
    "The passage does not say.",
    "The provided context does not contain the answer to this question.",
    "The passage does not mention this.",
    "I could not find this information in the provided text.",
    "I'm sorry, but the given context does not answer the question.",
    "There is not enough information in the passage to answer this question.",
    "The text does not specify this.",
    "This cannot be determined from the passage.",
    "Unfortunately, the document provides no information about this.",
    "I don't know, since the passage does not cover it.",
    "The answer is not stated in the context.",
    "I am unable to answer this from the information provided.",
    "No answer to this question can be found in the retrieved passages.",
)
BARE_REFUSALS = (
    "unanswerable",
    "I don't know.",
    "Not stated.",
    "Not mentioned in the passage.",
    "No answer found.",
    "Unknown",
)
REFUSAL_ADDITIONS = (
    "If you can share more of the document, I will gladly look again.",
    "You may want to consult another source.",
    "Additional context would be needed.",
    "Please provide more information if you have it.",
)
