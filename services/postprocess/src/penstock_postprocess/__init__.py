"""The postprocess service: screened answers in, terminal results out.

stage     CompletionScreened -> RequestFinished
clean     what does not belong into an answer: control tokens, cut characters, stop strings
trim      the half sentence at the end of an answer that ran into its token limit
structured  JSON where JSON was asked for: repair and schema
restoring   what the placeholders stand for, in text and inside JSON
"""
